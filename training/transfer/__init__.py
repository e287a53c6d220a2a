"""SAQT, semantic-aligned quality transfer: labels for new photographs from a labelled data set.

Each new photograph takes the opinion scores of the reference picture that it resembles most, for
every type and level of distortion that the data set has. `labels` are written first; `render` makes
the pictures, as files, as shards, or one at a time.
"""
