# yolo-prune, AGPL-3.0 license
"""What a run tells: its record, tables, pictures, and lines in the log."""
