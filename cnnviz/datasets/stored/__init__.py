"""Reading a run's folder: explanations, tables, pictures, faults."""
