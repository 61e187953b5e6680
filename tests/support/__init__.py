"""What tests of several wings share; no test module imports another."""

from support.shapes import checked as checked
