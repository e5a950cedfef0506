"""The mathematics: from deviations, responses and predictions to metrics and tests.

nonlinearity   JNE, JNE-SS and the mean deviation
prediction     R², Pearson's r, the p of R² > 0, false discovery rate
noise_ceiling  how well responses could be predicted
hierarchy      is one region or tier more nonlinear than another
selectivity    which stimuli is a region most nonlinear for
inference      the interval of a share of voxels, partial rank correlation
agreement      do maps of different subjects and data sets agree
random_effects the mean over subjects, by how well each is measured
contrast       differences and trends of shares, over stimuli
reliability    how much JNE would change with other stimuli or another seed

Plain functions of NumPy arrays. N stimuli, V voxels; arrays are (N, V).
"""
