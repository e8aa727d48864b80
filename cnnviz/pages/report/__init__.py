"""The report: one file of HTML with pictures, maps, and controls to look at them."""
