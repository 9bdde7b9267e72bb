"""What users write: steps, workflows, mappings; and the graphs that follow."""
