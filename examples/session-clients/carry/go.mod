module gamut.mesh/examples/carry

go 1.22
