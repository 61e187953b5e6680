"""From records to numbers. In: rows of records. Out: tables of times, intervals and contrasts; no engine, no page."""
