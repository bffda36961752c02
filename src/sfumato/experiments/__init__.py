"""The engine of studies: rows trained and judged, costs, verdicts, pages, jobs."""
