"""What `custody doctor` looks at: small functions, each for one question.

None changes anything, none needs the service. `finding` says what they give, `machine`,
`database` and `ledgers` ask about the three places where something can be wrong.
"""
