"""Where items come from: folders, lists, tables, tars, data sets; their labels and masks."""
