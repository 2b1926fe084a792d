"""Statistics of final losses: which option is better, by how much, and how sure that is."""
