package agent

import (
	"net/http"
	"strconv"

	"github.com/danielgtaylor/huma/v2"
)

// furtherAnswers are the successes of operations whose status depends on what was
// done, beside the one that they are registered with.
var furtherAnswers = map[string][]int{
	"put-uid-pool":          {http.StatusCreated},
	"release-uid":           {http.StatusNoContent},
	"release-uids":          {http.StatusNoContent},
	"put-vlan-inventory":    {http.StatusCreated},
	"import-vlan-inventory": {http.StatusCreated},
	"allocate-vlan":         {http.StatusOK},
	"release-vlan":          {http.StatusNoContent},
	"release-vlans":         {http.StatusNoContent},
	"put-allocation":        {http.StatusCreated},
	"delete-allocation":     {http.StatusNoContent},
	"put-vlan-service":      {http.StatusCreated, http.StatusAccepted},
	"patch-vlan-service":    {http.StatusAccepted},
	"begin-vlan-service":    {http.StatusAccepted},
	"confirm-vlan-service":  {http.StatusAccepted},
	"fail-vlan-service":     {http.StatusAccepted},
	"retry-vlan-service":    {http.StatusAccepted},
	"extend-vlan-service":   {http.StatusAccepted},
	"removed-vlan-service":  {http.StatusAccepted},
	"delete-vlan-service":   {http.StatusAccepted, http.StatusNoContent},
}

// document adds the further answers to an operation that is registered: what the
// first one holds, or nothing.
func document(op huma.Operation) {
	first := op.Responses[strconv.Itoa(http.StatusOK)]
	if first == nil {
		first = op.Responses[strconv.Itoa(http.StatusCreated)]
	}
	for _, status := range furtherAnswers[op.OperationID] {
		r := &huma.Response{Description: http.StatusText(status)}
		if status != http.StatusNoContent {
			r.Content, r.Headers = first.Content, first.Headers
		}
		op.Responses[strconv.Itoa(status)] = r
	}
}
