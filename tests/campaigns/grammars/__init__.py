"""Files that are well formed and hostile in what they say, drawn by hypothesis: shapes, types, names, depths, lengths."""
