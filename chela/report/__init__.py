"""From records to the paper's table, in every form."""
