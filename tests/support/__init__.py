"""What several tests share: made-up records and runs, stand-ins for workers and GPUs, processes that start at once."""
