"""What quality transfer is worth: training with it, without it, and on a placebo.

It is the image-level term alone that is trained, on pooled features: an arm takes a minute. Labels
are TID2013's, for Kodak's photographs, of which TID2013's references are crops.
"""
