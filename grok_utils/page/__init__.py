"""What people read. In: tables of the analysis. Out: figures, tables, sentences; executed, and as one HTML page."""
