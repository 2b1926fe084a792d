"""What only a GPU shows: checks and measurements in pieces of at most nine minutes.

    python -m benchmarks.gpu [--out FOLDER] [--only NAME …] [--again]

Writes `gpu.json` and `gpu.md` into the folder after every piece. A second call goes on with the pieces
that are missing. On a machine without CUDA the same list runs on the CPU in miniature, so that it
cannot rot; a piece that needs CUDA says so there.
"""
