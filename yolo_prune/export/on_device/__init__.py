# yolo-prune, AGPL-3.0 license
"""Scripts that are copied to a device as they are, by export/bundle.py among others. They import nothing of the
package."""
