"""Data sets of composed retrieval: a query is an image and a text that says what is to be different. No job asks so yet.

Their images, and captions that describe one image alone, are as any others. What a query asks with its image is kept as a failed row
(image_records.composed_caption), so that nothing learns it as the image's own caption and no score is made of the text alone.
"""
