# yolo-prune, AGPL-3.0 license
"""What tests of several wings share; fixtures stand in tests/conftest.py."""
