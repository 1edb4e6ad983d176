module cloud.google.com/go/monitoring

go 1.19

require google.golang.org/api v0.105.0
