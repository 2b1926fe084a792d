"""Experiment trackers: Lightning's loggers for them, which know the run, its sweep and its files.

A tracker of ours is a logger of Lightning that takes `run` (a `TrackedRun`) and may have:

    begin()                start, or go on with, the run of the tracker; returns its id there
    log_files(files)       keep files of the run's folder as artifacts
    end(status)            end the run of the tracker with the status of the record
"""
