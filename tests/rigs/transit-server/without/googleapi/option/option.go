// Package option stands where Google's API client would be, which telemetry alone asks for.
package option

type ClientOption struct{}

func WithUserAgent(string) ClientOption { return ClientOption{} }
