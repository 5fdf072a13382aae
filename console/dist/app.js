document.body.textContent = "The console of Serin is not part of this build. The API is at /v1/rollouts.";
