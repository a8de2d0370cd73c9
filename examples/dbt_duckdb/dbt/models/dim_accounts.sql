select account_id, name, upper(country) as country
from {{ ref('raw_accounts') }}
where is_active
