"""What a person sees in a browser: answers in notebooks, the report, the explorer. Everything that is HTML."""
