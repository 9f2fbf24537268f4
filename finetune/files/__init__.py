"""Rows of data files, by number, without reading the files whole."""
