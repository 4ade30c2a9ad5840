"""English words and phrases that raise or lower the scores of a document."""

ARTICLE = "the a an my your our their its"
PREPOSITION = "of to in for with from at by on"
NEVER_AFTER_ARTICLE = (
    "the a an of and or to in on at for with by from is are was were be been has have had that "
    "which but as if he she it they we i you his her their its my your not would will can could "
    "there this these who when what so do did into than"
)
NEVER_AFTER_PREPOSITION = (
    "of and or but is are was were be been has had have he she they we i with from to for in"
)
COMMON = (
    "the of and to in a is that for it as was with be by on not he this are or his from at "
    "which but have an had they you were their one all we can her has there been if more when "
    "will would who so no she other its may these what them than some him out into up do "
    "about any your only de la el en que les des le et der die und das il di che no se por "
    "con para una un def return import self if else class int const void static function var "
    "let public new null true false none struct include endif define fn use impl type string "
    "str print"
)
EXPLAIN = (
    "because therefore thus hence example mean means called define defined definition "
    "consider suppose explain explains explained explanation understand understanding why how "
    "theorem equation figure chapter exercise solution answer problem question method theory "
    "result cause causes effect process function structure study research evidence history "
    "learn learning return returns raise raises"
)
SELL = (
    "free offer offers discount discounts sale deal deals shipping cheap guarantee guaranteed "
    "winner bonus cash income earn profit profits mortgage loan loans debt credit lender "
    "investment investors opportunity refund affordable satisfaction savings promotion "
    "promotional marketing advertisement advertising advertisers wholesale pills adult order "
    "ordering customers toll prize money insurance affiliate premium reviews exclusive hurry "
    "instantly amazing dollars website online internet click cookie cookies"
)
SHOUT = (
    "subscribe unsubscribe viagra casino consent newsletter buy removed "
    "webcam porn xxx sex sexy nude lottery millionaire optin mlm"
)
SELL_PHRASES = (
    "order now,limited time,act now,call now,best price,save up,money back,sign up,log in,"
    "follow us,share this,read more,learn more,click here,click below,please click,"
    "simply click,click this,"
    "opt out,opt in,no obligation,risk free,mailing list,email address,e mail,"
    "email addresses,remove me,be removed,to unsubscribe,this email,this message,our customers,"
    "dear friend,dear sir,near me,for sale,free trial,skip to,toll free,no cost,get started,"
    "credit card,home page,special offer,legitimate interest,our partners,"
    "use cookies,uses cookies,using cookies,accept cookies,accept all,reject all,"
    "cookie policy,cookie settings,cookie consent,cookie notice,cookie preferences,"
    "our cookies,necessary cookies,cookies on,party cookies,analytics cookies"
)
TERMS_PHRASES = (
    "privacy policy,terms of,personal information,personal data,our services,the services,"
    "our service,the service,you agree,we may,we collect,your account,this agreement,third party,"
    "third parties,your personal,intellectual property,your use,your information,your content,"
    "these terms,user content,hereby grant,sole discretion,to us,contact us,your data"
)
