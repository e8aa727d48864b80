"""Methods as data: terms, arithmetic, expectations, baselines. Nothing here draws or reads files."""
