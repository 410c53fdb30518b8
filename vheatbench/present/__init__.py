"""What commands and pages are made of; knows nothing of runs, models or torch."""
