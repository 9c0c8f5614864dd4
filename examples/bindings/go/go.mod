module example.org/mongoose

go 1.19
