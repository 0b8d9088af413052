"""Layout samplers: what is to be seen in a synthetic image, and where.

windows        cut layouts of large images into layouts of a given size
constraints    overlap and border rules, shared by all samplers
balance        how often to draw around a rare class so that it reaches a stated share
reuse          ReuseSampler: real layouts, scaled, shifted, turned, flipped and merged (the default)
stored         real layouts in one small file, for when the data set is not at hand
prior          Prior: what a data set's layouts are like, as readable JSON; prior_fit fits it
prior_sampler  PriorSampler: grows new layouts from a Prior
uniform        UniformSampler: random boxes, the control of the fit score
fit_score      how far sampled layouts are from real ones
draw           boxes as pictures, contact sheets
"""
