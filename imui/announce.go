package imui

import (
	"context"
	"fmt"

	"hongyan/internal/control"
)

// ServiceName is the name under which an IMUI is registered for those who call it.
const ServiceName = "hongyan.imui"

// Announce makes the IMUI at addr, as callers reach it, known under ServiceName. It returns
// when ctx ends: then it is known no more.
func Announce(ctx context.Context, services control.Services, addr string) error {
	if err := services.Announce(ctx, ServiceName, control.Endpoint{Addr: addr}); err != nil && ctx.Err() == nil {
		return fmt.Errorf("announce %s at %s: %w", ServiceName, addr, err)
	}
	<-ctx.Done()
	return nil
}
