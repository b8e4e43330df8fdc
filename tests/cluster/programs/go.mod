module httpserver-cluster-test

go 1.26.0
