// Package gcpckms stands where a seal by Google's KMS would be: the transit server of the tests is unsealed by its own key.
package gcpckms

import (
	"context"
	"errors"

	wrapping "github.com/hashicorp/go-kms-wrapping/v2"
)

// Wrapper refuses to be configured, and so is never used.
type Wrapper struct{ wrapping.Wrapper }

func NewWrapper() *Wrapper { return &Wrapper{} }

func (*Wrapper) SetConfig(context.Context, ...wrapping.Option) (*wrapping.WrapperConfig, error) {
	return nil, errors.New("seals by Google's KMS are left out of this server")
}
