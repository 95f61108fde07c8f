"""The GPU as the engine sees it: chosen, its memory taken, its graphs captured, its loop, and the way back to the CPU."""
