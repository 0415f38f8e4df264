package api

import (
	"context"
	"iter"
	"net/http"
	"net/url"
	"strconv"

	"github.com/idpool/idpool/problem"
)

// pageSize is how many items a client asks for at once.
const pageSize = 500

// paged walks a list page by page. An error ends it, as its last element.
func paged[T any](ctx context.Context, c *Client, path, what string, query url.Values) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		var none T
		cursor := ""
		for {
			page, err := onePage[T](ctx, c, path, what, query, pageSize, cursor)
			if err != nil {
				yield(none, err)
				return
			}
			for _, item := range page.Items {
				if !yield(item, nil) {
					return
				}
			}
			switch page.Next {
			case "":
				return
			case cursor:
				yield(none, problem.New(problem.CodeInternal, "%s: the agent repeats a page", what))
				return
			}
			cursor = page.Next
		}
	}
}

func onePage[T any](ctx context.Context, c *Client, path, what string, query url.Values, limit int, cursor string) (List[T], error) {
	q := url.Values{}
	for k, v := range query {
		q[k] = v
	}
	if limit > 0 {
		q.Set("limit", strconv.Itoa(limit))
	}
	if cursor != "" {
		q.Set("cursor", cursor)
	}
	var page List[T]
	_, err := c.do(ctx, call{method: http.MethodGet, path: path, query: q, what: what}, &page)
	return page, err
}

// all collects an iterator; nothing is returned beside an error.
func all[T any](seq iter.Seq2[T, error]) ([]T, error) {
	var items []T
	for item, err := range seq {
		if err != nil {
			return nil, err
		}
		items = append(items, item)
	}
	return items, nil
}
