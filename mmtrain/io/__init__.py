"""Input and output shared by `mmtrain` and `mmdata`: storage, names of files, images, text for people. No torch."""
