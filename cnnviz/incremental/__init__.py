"""Scores of changed inputs or layers, computed only where the change reaches and verified against whole passes."""
