package k8s

import (
	"errors"
	"log"
)

type Provider struct{}

func (*Provider) Addrs(map[string]string, *log.Logger) ([]string, error) {
	return nil, errors.New("discovery of peers is left out of this server")
}

func (*Provider) Help() string { return "left out" }
