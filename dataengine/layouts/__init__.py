"""Layout samplers: which objects an image shows, and where.

sampler            the interface `Sampler`; AeroGen's enhancement and label filter around any sampler
reuse              ReuseSampler, the default: real layouts, scaled, shifted, turned, flipped and merged
rows               rows of similar objects at the spacings of real ones
prior              Prior: statistics of the layouts of a data set as readable JSON; prior_fit fits it
prior_sampler      PriorSampler: layouts grown from a Prior object by object, in the steps of growth
diffusion_sampler  DiffusionSampler: layouts from a trained denoiser
balance            how often to sample around a rare class so that it reaches a minimum share
constraints        overlap and border rules of all samplers
windows            windows of a given size cut out of larger layouts
stored             real layouts in one small file, for use without the data set
fit_score          the distance between sampled and real layouts, and the uniform control
"""
