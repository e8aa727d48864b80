"""The methods and renderers that come with cnnviz, registered the way a stranger's are."""
