"""The toolkit of renderers: arrays, intensity scales, text, montages, figures. Nothing here asks a model."""
