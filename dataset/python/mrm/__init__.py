"""Datasets of chest radiographs with reports."""
