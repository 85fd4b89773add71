"""The static numbers of a call: shapes, options, tiles, buffers."""
