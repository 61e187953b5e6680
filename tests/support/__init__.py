"""What tests of several wings share; no test module imports another."""
