"""From data to a trained encoder, a value: `fit(data, settings) -> Fitted`.

config      the keys that an encoder depends on beside the data
module      the encoder as a Lightning module: loss and optimiser
callbacks   what happens around training
fit         training
trainer     Lightning's Trainer
folds       training in folds
checkpoint  training that continues
components  training on few components of many responses
readout     the ridge readout
stacking    a readout stacked on ridge regression
kernel      kernel ridge regression, stacked on ridge regression
history     what training leaves beside the weights
baseline    ridge regression, what any encoder has to beat
"""
