def write(everything, directory):
    pass
