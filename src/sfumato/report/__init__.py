"""Pictures, tables and the report page: what a person looks at.

Every picture is one function that returns a PIL image (pixels: sheets, strips) or a matplotlib Figure (curves), and
says in its own caption what made it: seeds, steps, weights. `save` writes either. Nothing here touches a display or
a global figure.

    sheet       a grid of images, uncurated unless it says CURATED
    blocks      several sheets side by side;  sweep: the same seeds under several settings
    strip       the iterative denoising, x and the estimates of x0;  gif animates it
    latents     images encoded to any noise level and decoded from there
    curves      scores against NFE, guidance, n; rate-distortion; loss
    table       numbers with their intervals, for terminals, Markdown, CSV
    page        one HTML file that shows a run's results and needs nothing else
"""

SEVERAL_PER_FILE = True  # see `core.find`
