"""Requests that need not be sent: copies of others in the job, and those that earlier jobs have answered."""
