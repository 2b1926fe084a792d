"""`report.html`: one page that opens without a network."""
